"""Measuring diff and apply beside other programs, on any two files.

What `bsipatch bench OLD NEW` needs on a user's own machine.  The corpora, the long
tasks and the kernels are in the repository's `bench/`, which builds on this.
"""
