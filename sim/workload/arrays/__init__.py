"""One iteration as a loop over arrays, with the seconds of `iteration.py` to the bit and without SimPy.

The loop is plain code that numba compiles where that pays. In: an `IterationWork`. Out: seconds, and what is in flight.
"""
