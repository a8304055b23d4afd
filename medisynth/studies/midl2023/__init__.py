"""Recomputes what the MIDL 2023 paper (arXiv:2304.03941) reports, from its public table and logs.

Every function here is pure: tables, arrays and pictures in, findings out. A number that the paper
prints stands here as its claim; what is beside it is computed from the files. A setting that can
only be read in the published code says so.
"""
