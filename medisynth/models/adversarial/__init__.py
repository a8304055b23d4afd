"""What adversarial trainings share: discriminators' layers, losses, penalties, augmentation.

TB-GAN trains its generator with it, and the enlarging stages refine a generator's own images with
it. `settings` imports no torch.
"""
