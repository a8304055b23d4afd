"""Parts shared by adversarial trainings: layers, losses, penalties, augmentation.

TB-GAN trains its generator with it, and the enlarging stages refine a generator's own images with
it. `settings` imports no torch.
"""
