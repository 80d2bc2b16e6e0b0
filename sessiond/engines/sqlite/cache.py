"""Records kept in memory, bounded in bytes; the least recently used go first. What it forgets is on the way to disk or there."""

from collections import OrderedDict

from sessiond.calls import Address
from sessiond.metrics import EngineFigures
from sessiond.record import Record

RECORD_BYTES = 700
"""What a record costs beside its data, user and meta: the Struct, its numbers, key, op, address and place in the table.

Measured as the growth of the process over 200,000 cached sessions of 300 bytes, on CPython 3.11 (x86-64): 540 bytes made
by calls, 500 read from the file. Rounded up for what an allocator cannot use again.
"""


class HotCache:
    def __init__(self, limit_bytes: int, figures: EngineFigures) -> None:
        self._limit = limit_bytes
        self._figures = figures
        self._records: OrderedDict[Address, Record] = OrderedDict()

    def get(self, address: Address) -> Record | None:
        record = self._records.get(address)
        if record is not None:
            self._records.move_to_end(address)
        return record

    def put(self, address: Address, record: Record) -> None:
        old = self._records.get(address)
        self._records[address] = record
        self._records.move_to_end(address)
        if old is not None and old.data is record.data and old.meta is record.meta and old.user is record.user:
            return  # a renewal: nothing grew
        if old is None:
            self._figures.cache_entries += 1
        else:
            self._figures.cache_bytes -= _cost(old)
        self._figures.cache_bytes += _cost(record)
        while self._figures.cache_bytes > self._limit:
            self.drop(next(iter(self._records)))

    def drop(self, address: Address) -> None:
        record = self._records.pop(address, None)
        if record is not None:
            self._figures.cache_entries -= 1
            self._figures.cache_bytes -= _cost(record)


def _cost(record: Record) -> int:
    cost = RECORD_BYTES + len(record.data)
    if record.user is not None:
        cost += _text(record.user)
    if record.meta:
        cost += 300 + sum(40 + _text(name) + _text(text) for name, text in record.meta.items())
    return cost


def _text(text: str) -> int:
    # The most that Python takes: for text beyond ASCII, 4 bytes a character and its UTF-8 beside it. sys.getsizeof would
    # tell more once that UTF-8 is there, and a record has to cost the same when it goes as when it came.
    return 56 + len(text) if text.isascii() else 80 + 7 * len(text)
