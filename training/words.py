"""Word lists that the corpus is built from."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(",") if part.strip())


ONSETS = _words("b br c ch cr d dr f fl g gl gr h j k kl kr l m n p pr qu r s sh sk sl st t th tr v w y z")
VOWELS = _words("a e i o u a e i o ai ea ee ie oa ou y")
CODAS = ("", "", "", "l", "m", "n", "r", "s", "t", "x", "nd", "rk", "lt", "ns", "ck", "sh", "th", "v")

FIRST_NAMES = _words(
    "Anna Ben Carla David Elena Frank Grace Hugo Ines Jonas Karin Leo Maria Nils Olga Paul Rosa Sam Tina Victor "
    "Wei Yuki "
    "Omar Priya Lucas Emma Noah Mia Ivan Sara Tom Lena Max Nora Felix Ada Alan Linus Mary John Peter Julia Clara Amir"
)
CITIES = _words(
    "Berlin Paris London Madrid Oslo Tokyo Lima Cairo Delhi Boston Vienna Prague Seoul Milan Porto Dublin Geneva "
    "Warsaw Athens Zurich Lagos Quito Hanoi Sydney Toronto Chicago Munich Lyon Riga Kyoto Shanghai Beijing"
)
PRODUCTS = _words(
    "SQLite Redis Kafka Postgres Textual Ray Docker Linux Python Rust Torch Flink Spark Nginx Grafana Prometheus "
    "Qdrant RocksDB MySQL Hadoop Arrow Parquet Llama Mistral Qwen Typer Pydantic Gloo OpenAI Ubuntu Debian Windows "
    "macOS WSL2 YAML JSON TOML Markdown HTTP GRPC SSH MIT Apache BSD CUDA Jupyter Numpy Pandas Vim Emacs Git "
    "Bash Ollama"
)
COLOURS = _words("red blue green yellow orange purple black white grey brown pink silver golden violet turquoise")
ADJECTIVES = _words(
    "small large fast slow local remote old new main backup spare public private hidden simple central northern "
    "southern "
    "eastern western upper lower inner outer daily weekly monthly default internal external shared global temporary "
    "active idle stable early late final first second third heavy light empty full short long open closed quiet strict "
    "nightly young great common special secure modern ancient cold warm hot dry wet free rare safe"
)
SERVICES = _words(
    "gateway server daemon cache worker scheduler proxy broker indexer router collector exporter registry dashboard "
    "database engine service agent client controller monitor balancer parser builder crawler mailer queue storage "
    "backend frontend supervisor runner loader planner compiler sampler tokenizer connector listener watcher"
)
THINGS = _words(
    "pump lamp robot printer sensor camera bridge tower train ship boat bus car bike truck door window table library "
    "museum school garden farm factory warehouse office station airport hotel restaurant bakery laboratory telescope "
    "satellite machine motor battery cable box book map river lake mountain island village castle church market store"
)
ROLES = _words(
    "director captain teacher doctor engineer manager author editor owner pilot chef nurse painter writer "
    "farmer lawyer "
    "designer mechanic librarian developer operator admin analyst baker driver guard singer student tester gardener"
)
ORGS = _words(
    "Labs Systems Institute University Group Press Foods Airlines Bank Motors Works Studio Club Council Hospital"
)

# verb: base third-person gerund participle
VERBS: tuple[tuple[str, str, str, str], ...] = tuple(
    (a, b, c, d)
    for a, b, c, d in (
        row.split()
        for row in """open opens opening opened
start starts starting started
stop stops stopping stopped
create creates creating created
remove removes removing removed
delete deletes deleting deleted
list lists listing listed
show shows showing shown
print prints printing printed
check checks checking checked
run runs running run
build builds building built
install installs installing installed
update updates updating updated
restart restarts restarting restarted
deploy deploys deploying deployed
export exports exporting exported
import imports importing imported
load loads loading loaded
save saves saving saved
send sends sending sent
read reads reading read
write writes writing written
copy copies copying copied
move moves moving moved
rename renames renaming renamed
sort sorts sorting sorted
filter filters filtering filtered
merge merges merging merged
split splits splitting split
count counts counting counted
measure measures measuring measured
test tests testing tested
watch watches watching watched
record records recording recorded
download downloads downloading downloaded
upload uploads uploading uploaded
encrypt encrypts encrypting encrypted
compress compresses compressing compressed
schedule schedules scheduling scheduled
cancel cancels cancelling cancelled
pause pauses pausing paused
resume resumes resuming resumed
reset resets resetting reset
change changes changing changed
set sets setting set
choose chooses choosing chosen
enable enables enabling enabled
disable disables disabling disabled
hide hides hiding hidden
draw draws drawing drawn
clean cleans cleaning cleaned
store stores storing stored
fetch fetches fetching fetched
find finds finding found
search searches searching searched
train trains training trained
index indexes indexing indexed
group groups grouping grouped
register registers registering registered
call calls calling called
serve serves serving served
limit limits limiting limited
hold holds holding held
keep keeps keeping kept
name names naming named
define defines defining defined
turn-off turns-off turning-off turned-off
turn-on turns-on turning-on turned-on
set-up sets-up setting-up set-up
shut-down shuts-down shutting-down shut-down
look-at looks-at looking-at looked-at""".splitlines()
    )
)
OBJECTS = _phrases(
    """the dashboard, a project, a new project, the server, the gateway, the services, the engine, the logs, the log
    files, a pipeline, the pipeline, a job, all jobs, the report, the index, the database, the cache, a backup, the
    configuration, the settings, a user, the users, the templates, a template, the environment, the version, the model,
    a bigger model, the models, a text, the documents, a document, the vectors, an image, the images, the queue, the
    messages, a message, the tests, the results, the workers, a worker, the records, a stream, the files, a file, a
    folder, the folder, the state, the checkpoints, a checkpoint, the keys, the password, a token, the tokens, the
    network, the ports, a table, the tables, the plugins, a plugin, the schedule, the metrics, the traffic, the disk,
    the memory, the requests, the cluster, a cluster, the website, the manual, colours, the sound, the heating, the
    lights, the door, the invoices, an order, the orders, a ticket, the calendar, the address book, a branch, the status
    of the engine, the list of jobs, the size of a batch, the number of workers, the name of the model, the address of
    the
    gateway, the place of the state folder, the output, the errors, the traceback, shell completion, the benchmark"""
)
EVENTS = _phrases(
    """crashes, stops, is full, is busy, times out, loses its connection, is restarted, runs out of memory, is killed,
    is overloaded, gets a wrong password, finds no file, is idle for an hour, is updated, cannot reach the server, is
    switched off, receives a bad message, is started twice, is taken, does not answer, is empty, is too hot, is late"""
)
CLAUSE_ENDS = _phrases(
    """at once, after a short wait, in the background, once a day, for each request, in one step, without a restart, in
    a
    new process, on every node, with one command, from a file, over the network, into a folder, on the next start"""
)
PLAIN_WORDS = _words(
    "apple stone cloud river paper light window garden silver music coffee winter summer forest bridge candle mirror "
    "pocket rocket planet ladder hammer basket bottle button carpet castle cherry copper cotton dragon engine feather "
    "flower guitar harbor honey island jacket jungle kettle lemon lizard marble meadow monkey needle orange oyster "
    "pepper pillow potato puzzle rabbit ribbon saddle salmon shadow spider sunset temple tiger tomato turtle valley "
    "velvet violin walnut whisper wizard yellow zebra bread chair clock cup fish grass horse house key leaf milk moon "
    "nut pen rain ring road salt sand seed snow soup star sugar sun tea tree wall water wind wood wool"
)
MODES = _phrases(
    """strict, relaxed, eager, lazy, hash, greedy, random, round robin, first come first served, fair, manual,
    automatic, dark, light, compact, verbose, quiet, json, csv, plain text, binary, utf-8, gzip, zstd, snappy,
    incremental, full, at least once, exactly once, read only, append only, continuous batching, aligned barriers, a
    paged cache, least
    recently used, cosine, dot product, flat, tree, ring, star, mesh, linear, exponential, fixed delay, adaptive"""
)
SUFFIXES = _words("json toml yaml md txt log db py csv sock lock conf ini html xml bin pid env")
FOLDERS = _words(
    "docs etc var data logs state cache config src lib tmp run home build tests models .cache .config .state"
)

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "port": _phrases("port, default port, port number, fallback port, admin port, backup port, debug port, HTTP port"),
    "integer": _phrases(
        """batch size, queue length, number of workers, thread count, retry limit, page limit, block size, number of
        replicas, default dimension, room number, seat count, window size, exit code, pool size, number of shards,
        maximum length, line number, number of layers, number of employees, population, number of pages, capacity"""
    ),
    "duration": _phrases(
        """timeout, default timeout, interval, lease time, retention time, delay, cooking time, travel time, polling
        interval, grace period, warm-up time, session length, checkpoint interval, waiting time, start-up time"""
    ),
    "size": _phrases(
        "memory limit, cache size, disk quota, file size, buffer size, image "
        "size, download size, heap size"
    ),
    "version": _phrases("version, minimum version, latest version, protocol version, schema version, required version"),
    "path": _phrases(
        "log file, config file, socket path, data folder, state folder, "
        "output file, key file, home folder"
    ),
    "variable": _phrases("environment variable, token variable, key variable, home variable"),
    "person": _phrases(
        "owner, author, maintainer, director, captain, founder, inventor, "
        "editor, teacher, contact person"
    ),
    "place": _phrases("location, region, home town, birthplace, headquarters, data center, destination, capital"),
    "colour": _phrases("colour, color, main colour, logo colour, status colour, theme colour"),
    "date": _phrases(
        "release date, founding date, birthday, deadline, opening date, start "
        "date, expiry date, due date"
    ),
    "money": _phrases("price, budget, monthly fee, cost, salary, entrance fee, ticket price, deposit"),
    "percent": _phrases("error rate, hit rate, discount, tax rate, humidity, share, success rate, load"),
    "mode": _phrases(
        "mode, policy, strategy, format, encoding, theme, eviction policy, "
        "default method, style, algorithm"
    ),
    "product": _phrases(
        "database, language, framework, licence, license, operating system, storage engine, message broker, "
        "library, API"
    ),
    "route": _phrases("route, endpoint, URL path, health route, metrics route, API path"),
    "class": _phrases("class, client class, main class, base class, entry point"),
    "command": _phrases("start command, stop command, test command, build command, help command"),
    "word": _phrases(
        "password, code word, user name, nickname, label, project name, host "
        "name, symbol, favourite word"
    ),
    "list": _phrases("members, parts, ingredients, supported formats, languages, plugins, stages, topics"),
}  # fmt: skip
