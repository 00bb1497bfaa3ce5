"""Peers beside formalgr: the same instances in the same run, one thread each."""
