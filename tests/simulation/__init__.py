"""A simulator of the whole system: real engine, peers, sessions, store, clients and workers in virtual time.

Only the edges are simulated: the clock and event loop (`world`), the network (`network`), the disk (`disk`) and what
tasks do (`pool`). Everything that happens follows from one seed, so a failing seed replays:

    python -m tests.simulation --seed 4711
"""
