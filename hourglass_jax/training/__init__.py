"""The parts of a training: step, losses, optimiser, phases, log."""
