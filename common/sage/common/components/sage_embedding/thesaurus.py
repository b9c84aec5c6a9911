"""A small thesaurus of everyday computing English: words of one line are taken to be about the same thing.

It lets a question in a user's words meet a manual's words ("turn off", "shut down", "stop"). General on purpose: it
holds no product's names.
"""

from __future__ import annotations

_TEXT = """
start launch begin boot run execute serve
stop halt quit shut shutdown kill terminate end
restart reboot
show display print see view look list watch observe
monitor dashboard screen watch inspect
status state health alive running
create make new build generate scaffold init
delete remove erase drop clear clean purge
change alter modify set configure adjust switch move override
choose pick select name
setting option flag parameter configuration config preference switch argument
variable env environment
folder directory dir path location place
file document page
store save keep persist
read load fetch get
find locate search look
install setup set-up
check verify test validate examine diagnose doctor
error failure fault problem issue trouble wrong broken fail
crash die dead kill
busy overloaded full taken occupied
wait timeout delay
fast quick speed performance latency benchmark bench measure
big bigger large larger size huge long length
small tiny little short
amount count number quantity
default standard normal usual built-in builtin
licence license open-source
offline internet network online
computer machine laptop pc hardware host
gpu graphics accelerator card cuda
platform system os operating windows linux mac macos
command type cli shell terminal console
question ask query
answer reply respond response returns
talk chat conversation speak
model llm network weights
vector embedding
dimension size length
split chunk passage
server service daemon
port address host endpoint
route endpoint path url
package module library
method function call operator
cluster distributed remote
parallel concurrent side-by-side
pipeline job flow graph stream dataflow
record item row
group partition key
checkpoint snapshot savepoint
browser web
token key secret password credential
colour color
json machine-readable
traceback trace stacktrace details debug
version release
train retrain reproduce training
precedence order priority wins
download mirror hub
example demo demonstration sample
background detach
live follow stream tail
interrupt interrupted ctrl-c abort cancel
"""

GROUPS = tuple(_TEXT.strip().splitlines())
"""One group a line, words separated by spaces. A word may stand in several groups."""
