"""Recomputation of results of the MIDL 2023 paper (arXiv:2304.03941) from its table and logs.

Every function here is pure: tables, arrays and pictures in, findings out. Numbers printed in the
paper are stated as its claims; the numbers beside them are computed from the files. Settings that
can only be read in the published code are marked as such.
"""
