"""How threads of one operation wait for each other: they spin for a while, then yield.

Torch's operations are shared by OpenMP's threads, which meet at the end of each. By default a
waiting thread of GNU's library (libgomp, in torch's Linux packages) spins some 300,000 times, for
milliseconds. On a quiet machine the others come much sooner; beside another program the one it
waits for may not be running, and the spinning takes its time. OMP_WAIT_POLICY=PASSIVE never spins,
which a quiet machine pays for at every operation. Commands set a bound between the two.
"""

import os

BOUND = "GOMP_SPINCOUNT"
POLICY = "OMP_WAIT_POLICY"
SPINS = 10_000  # a fraction of a millisecond: the usual time between two operations


def bound_spinning() -> None:
    """Sets the bound for this process and those it starts; before torch is imported, once.

    Nothing is changed where the environment says how threads wait.
    """
    if BOUND not in os.environ and POLICY not in os.environ:
        os.environ[BOUND] = str(SPINS)


def waiting() -> str:
    """Says in words how threads of this process wait, if torch was imported after it was set."""
    if BOUND in os.environ:
        return f"threads that wait spin {os.environ[BOUND]} times ({BOUND}), then yield"
    if POLICY in os.environ:
        return f"threads wait as {POLICY}={os.environ[POLICY]} says"
    return "threads that wait spin for milliseconds"
