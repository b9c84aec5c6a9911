"""KV blocks on their way from one process's cache to another's: shared memory on one host, TCP between hosts.

The sender holds a `KVTransferChannel` to each receiver, the receiver one `KVReceiver` for all senders. Both sides
count slots: what is under way at any time is bounded, and a slow receiver slows the sender down.
"""

from sagellm_core.kv_transfer.channel import KVTransferChannel
from sagellm_core.kv_transfer.messages import KVAddress, KVForm
from sagellm_core.kv_transfer.receiver import Arrival, KVReceiver

__all__ = ["Arrival", "KVAddress", "KVForm", "KVReceiver", "KVTransferChannel"]
