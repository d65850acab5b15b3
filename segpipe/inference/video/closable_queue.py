"""What two threads hand each other: a bounded queue that either end may close."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ClosableQueue(Generic[T]):
    """At most `depth` items wait. With `newest`, an item that finds no room takes the place of the oldest, which is `dropped`;
    otherwise `put` waits for room."""

    def __init__(self, depth: int, newest: bool = False) -> None:
        self.dropped = 0
        self._items: deque[T] = deque()
        self._depth, self._newest = depth, newest
        self._closed = self._abandoned = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Hand an item over; False where nobody takes any more."""
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
        """No more will be put; what waits is still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """No more will be taken: who puts need not wait."""
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
