"""Latencies of the hardware in cycles, as its docstrings state them; all that the model knows.

Times in the loops are counted from the run's start pulse.
"""

from __future__ import annotations

__all__: list[str] = []

# hw.activations. A token maker begins in the cycle after the start pulse.
SINGLE_START = 3  # RowReader, one segment: start pulse to first request
SEVERAL_START = 1  # of several, to LOOK_UP
WORDS = 16  # RowReader: words that are asked for and not taken, at most
VISITS = 4  # its visits, of several segments
ENCODER = 3  # last value of a row to its last word

# hw.array
ADD = 3  # a walker takes a token, `mac` of its first tap: PE, t + 5 of a token of t, t + 2 here
FIRST_READ = 5  # a walker takes `complete`, first read of the row: PE, `south` in t + 10
SEND = 2  # Drain: a word is read, it can be sent; on `south` one cycle later
SOUTH = 1
QUEUE = 16  # words of a bank that a drain holds
RING_FREE = 2  # Drain, PE: last read of a row, the walker can take the `open` that waited
NOTHING_FREE = 5  # the same of a column without channels, from the walker's `complete`

# hw.output
REQUANTISER = 7
SERIAL = 5  # more of it with `output_cycles`, from the requantiser
DIGIT = 16  # bits that SerialScaler multiplies at once
LOOKUP = 1  # in every run of a machine that has it
ADDER = 12  # adding: six to a sum, six to the result
POOLER = 8
# Of a column with `output_cycles`.
SERIAL_RESULT = 12  # more of an adder or pooler
PACKER = 1  # RowPacker: the last value of a row to its last word
SUMMING = 8  # an operand is scaled, to its sum on offer to the scaler
SCALINGS = 3  # of an output that is added: the operand's, the output's, the sum's
SUM_HEADROOM, POOL_HEADROOM = 21, 12  # bits of a sum, or of a window's, above an activation's
POOL_SCALE = 31  # bits of its scale
POOL_WINDOW = 4  # SerialPooler: a value for each of its windows
POOL_SEVERAL = 2  # more of a value in several
POOL_PLACE = 11  # after each place
POOL_RESULT = 5  # a result
POOL_SENT = 3  # after those of a window
POOL_ROW = 8  # after each row
POOL_PAD = 5  # and for each place of padding
FINISHED = 1  # RowWriter's `busy` falls in the cycle after its last write, and the run is finished

# hw.weights and hw.memory
FIRST_REQUEST = 2  # StreamFetcher: from `start` to the first request on offer
READ_AHEAD = 8  # StreamFetcher: words
PROGRAM_AHEAD = 16  # ProgramFetcher: words
TAKEN = 2  # StreamFetcher: a word is taken, the request for its place can be on offer
TO_PORT = 1  # Arbiter: a request was accepted, it is at the port
TO_WORD = 2  # StreamFetcher's FIFO: a response to the word on offer
CHUNK = 32  # BitReader: bits
HELD = 3  # BitReader: chunks
BUILD = 1  # a state before the first element's pairs
PIPELINE = 5  # PairDecoder: a pair taken to `o`, 4; WeightLoader: all is written
BEHIND = 3  # PairDecoder: cycles that the writer may lag
TABLE = 1  # HuffmanTable: cycles after the last length, less the symbols and the longest code
# Likewise of a compact loader (`pair_cycles` 6).
COMPACT_CHUNK = 16  # ChunkReader: bits, after which a cycle passes
ZERO, LIMITS = 16, 19  # CodeTables: passes over the lengths before and after they are read
CODE = 3  # CompactDecoder: cycles of a code
STEADY = 2  # of them, after the window was looked at
ESCAPED = 2  # an escape's end to the end of the next code
OFFERED, OFFERED_ESCAPE = 2, 1  # the end of a pair to it on offer
PUT = 2  # CompactWriter: a pair to be accepted and to be put
FINISH = 2  # the end of the last pair to the pointers after it

# With `registered_links`, in addition.
LINKED_READ = 4  # a request's link, its choice a cycle ahead, the response, the link to the decoder
LINKED_TOKEN = 2  # the queues behind the decoder and before the array
LINKED_OUTPUT = (
    4  # before requantiser, pooler, encoder, in the packer; one more before each of lookup, adder
)
LINKED_WRITE = 2  # a write's link, and its choice
LINKED_START = 1  # what is told of a run or a load
LINKED_LOAD = 1  # Sequencer: whether a load may begin, or is done for the run that needs it
LINKED_END = 2  # what the sequencer knows of a run; of a load half of it

# hw.control
FIRST_ASK = 3  # StreamFetcher: from the machine's `start` to the first request for the program
START = 1  # Sequencer: from a run's dispatch to its start
DONE = 2  # END: `drained` to `done`
