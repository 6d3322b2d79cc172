"""How many files and sockets this process may have open."""

import resource


def raise_limit():
    """From the usual 1,024 to as many as the system allows. What was started before has its own limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
