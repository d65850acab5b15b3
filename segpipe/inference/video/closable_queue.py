"""A bounded queue between two threads that either of them can close."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ClosableQueue(Generic[T]):
    """A queue of at most `depth` items, for one producer and one consumer, which iterates over it.

    Args:
        depth: Maximum number of items that wait.
        newest: Drop the oldest item if there is no room for a new one, and count it in `dropped`. By default `put` waits for room.
    """

    def __init__(self, depth: int, newest: bool = False) -> None:
        self.dropped = 0
        self._items: deque[T] = deque()
        self._depth, self._newest = depth, newest
        self._closed = self._abandoned = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Add an item. Return False if the consumer has abandoned the queue."""
        with self._changed:
            if self._newest and len(self._items) >= self._depth:
                self._items.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: len(self._items) < self._depth or self._abandoned)
            if self._abandoned:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def close(self) -> None:
        """End the queue: the producer adds no more items, and the consumer still gets those that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Stop consuming: waiting items are discarded, and the producer no longer waits."""
        with self._changed:
            self._abandoned = self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed)
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
