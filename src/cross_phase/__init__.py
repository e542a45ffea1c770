"""Parts shared by all eight phases of training: utilities, optimizer, run tracking.

Importing this package is cheap: it loads no submodule and not torch. Import what you need:

- ``cross_phase.utils``: model size, batch size, diversity, divergence, checkpoints, tokenizers.
- ``cross_phase.mugrokfast``: the MuonGrokfast optimizer and its per-phase presets.
- ``cross_phase.monitoring.wandb_integration``: run tracking and metric continuity over phases.
"""
