"""Prompts written by hand, as a person would put them; none of them comes from the corpus's templates.

Contexts are pieces of manual-like prose in the shape that the pipeline template sends. An answer counts as right where,
stripped of a closing full stop and of case, it is one of the accepted ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.context_tasks import PRODUCT_FRAME
from training.example import SYSTEM_PROMPT, Turn

UNKNOWN = ("I don't know",)
_IDIOM = (
    "[1] # The bakery\n\nMrs. Halloway opened the shop in 1987 together with her brother. Bread is baked every "
    "night, and the "
    "ovens are hot by 3 am.\n[2] Rye costs 4.20 euros a loaf. On Sundays the shop stays closed, but you can "
    "order by phone.\n"
    "[3] The recipe for the walnut cake is secret. It came from her grandmother, who lived in Trieste."
)
_TOOL = (
    "[1] ## Installing\n\nDownload the archive and unpack it. `quill setup` writes a first configuration to "
    "`~/.quill/config.toml`. Nothing is sent over the network.\n[2] The daemon can be reached on port 7410. If another "
    "program holds that port, start it with `quill start --port N`.\n[3] Old entries are thrown away after 14 "
    "days. To keep "
    "them longer, raise `retention` in the configuration."
)
_MANUAL = (
    "[1] # The gateway\n\nThe gateway is one address for chat, completions and embeddings. It listens on port 8889 by "
    "default and speaks the API of OpenAI.\n[2] When its queue is full, the gateway answers with status 429 and "
    "a Retry-After "
    "header, so a client knows when to come back.\n[3] Python code talks to the gateway through "
    "`UnifiedInferenceClient`. The "
    "client's default timeout is 60 seconds."
)
_OPS = (
    "[1] Everything SAGE remembers stands in `.sage/`: the database `state.db`, log files and checkpoints. Set "
    "`SAGE_HOME` to "
    "move it.\n[2] The running daemons are recorded in `.sage/llm/daemon.json`. The file is replaced "
    "atomically.\n[3] ## "
    "Dashboard\n\nType `sage monitor` to watch engines, pipelines and logs. The dashboard is built with Textual."
)
_STAFF = (
    "[1] The harbour office is led by Ingrid Solberg. She took over from Tomas Reyes, who retired in "
    "March.\n[2] Ferries to "
    "Lindholm leave every 40 minutes; the crossing takes 25 minutes.\n[3] Dogs travel free of charge. Bicycles "
    "need a ticket "
    "of 3 euros."
)
_NOTE = "The meeting was moved to Thursday at 10. Priya will bring the slides, and lunch is in the red room."
_REPO = (
    "[1] The project is written in Rust and uses SQLite for storage. Its licence is Apache-2.0.\n[2] Run `just "
    "check` before "
    "you open a pull request. Tests need about 6 minutes.\n[3] Error messages are explained in "
    "`docs/errors.md`; exit code 4 "
    "means that the lock could not be taken."
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question, perhaps with a context, and the answers that count as right."""

    question: str
    accepted: tuple[str, ...]
    context: str = ""
    chunks: bool = True

    def turns(self) -> tuple[Turn, ...]:
        """The conversation as the product sends it."""
        if not self.context:
            return (Turn("user", self.question),)
        if not self.chunks:
            return (Turn("user", f"{self.context}\n\n{self.question}"),)
        return Turn("system", SYSTEM_PROMPT), Turn("user", PRODUCT_FRAME.format(c=self.context, q=self.question))


PROMPTS = (
    Prompt("When did the shop open?", ("1987", "in 1987"), _IDIOM),
    Prompt("Who opened the bakery?", ("Mrs. Halloway", "Mrs. Halloway together with her brother"), _IDIOM),
    Prompt("how much is a loaf of rye", ("4.20 euros", "4.20 euros a loaf"), _IDIOM),
    Prompt("Where did the grandmother live?", ("Trieste", "in Trieste"), _IDIOM),
    Prompt("What is the phone number of the bakery?", UNKNOWN, _IDIOM),
    Prompt("Which command writes the first configuration?", ("quill setup",), _TOOL),
    Prompt("Where is the configuration kept?", ("~/.quill/config.toml",), _TOOL),
    Prompt("what port is the daemon on?", ("7410", "port 7410"), _TOOL),
    Prompt("How long are old entries kept?", ("14 days",), _TOOL),
    Prompt("Which setting keeps entries longer?", ("retention",), _TOOL),
    Prompt("How do I uninstall it?", UNKNOWN, _TOOL),
    Prompt("Which port does the gateway listen on by default?", ("8889", "port 8889"), _MANUAL),
    Prompt("What status code comes back when the queue is full?", ("429", "status 429"), _MANUAL),
    Prompt("Which Python class should my code use to talk to the gateway?", ("UnifiedInferenceClient",), _MANUAL),
    Prompt("After how many seconds does the client give up?", ("60 seconds", "60"), _MANUAL),
    Prompt("Whose API does the gateway imitate?", ("OpenAI", "the API of OpenAI"), _MANUAL),
    Prompt("Which GPU does the gateway need?", UNKNOWN, _MANUAL),
    Prompt("What do I type to open the dashboard?", ("sage monitor",), _OPS),
    Prompt("Which environment variable moves the state folder somewhere else?", ("SAGE_HOME",), _OPS),
    Prompt("Where does SAGE write down which daemons are running?", (".sage/llm/daemon.json",), _OPS),
    Prompt("Which library was the dashboard made with?", ("Textual",), _OPS),
    Prompt("What is the name of the database file?", ("state.db",), _OPS),
    Prompt("Who leads the harbour office?", ("Ingrid Solberg",), _STAFF),
    Prompt("How long does the crossing take?", ("25 minutes",), _STAFF),
    Prompt("what does a bicycle ticket cost", ("3 euros",), _STAFF),
    Prompt("Who is the captain of the ferry?", UNKNOWN, _STAFF),
    Prompt("When is the meeting?", ("Thursday at 10", "on Thursday at 10", "Thursday"), _NOTE, chunks=False),
    Prompt("Who brings the slides?", ("Priya",), _NOTE, chunks=False),
    Prompt("What language is the project written in?", ("Rust",), _REPO),
    Prompt("What should I run before opening a pull request?", ("just check",), _REPO),
    Prompt("In which file are error messages explained?", ("docs/errors.md",), _REPO),
    Prompt("What does exit code 4 mean?", ("that the lock could not be taken", "the lock could not be taken"), _REPO),
    Prompt("What's the licence?", ("Apache-2.0",), _REPO),
    Prompt("Who maintains the project?", UNKNOWN, _REPO),
    Prompt("what port is the gateway running on", ("8889",)),
    Prompt("How do I get the dashboard up?", ("sage monitor",)),
    Prompt("I'd like to shut the whole thing down, how?", ("sage llm stop",)),
    Prompt("Which python do I need for SAGE?", ("Python 3.11 or newer",)),
    Prompt("can i use my own, bigger model?", ("sage llm serve --model PATH",)),
    Prompt("Where does SAGE put its log files?", (".sage/logs/",)),
    Prompt("What licence is SAGE under?", ("MIT",)),
    Prompt("what's the default embedding method", ("hash",)),
    Prompt("Who won the world cup in 1998?", UNKNOWN),
    Prompt("Hello!", ("Hello! I am SAGE's built-in model, a small demonstration model. Ask me about SAGE",)),
)


def right(prompt: Prompt, answer: str) -> bool:
    """True where the answer is an accepted one, but for case, backticks and a closing full stop."""
    plain = answer.strip().rstrip(".").replace("`", "").lower()
    return plain in {accepted.lower() for accepted in prompt.accepted}
