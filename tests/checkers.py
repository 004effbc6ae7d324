"""The compiled checkers, once per test process."""

import atexit
from contextlib import ExitStack
from functools import cache

from ioaware_proofs.certificate import checkers


@cache
def compiled():
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(checkers())
