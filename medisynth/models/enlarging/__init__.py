"""The enlarging stage that both generators share: small images to large ones, with drawn speckle.

A generator enlarges 2, 4 or 8 times and draws the texture that a small image cannot hold from
noise; a critic is shown the plain enlargement beside each image. `refining` trains a doubling on a
generator's own images instead. `settings` imports no torch.
"""
