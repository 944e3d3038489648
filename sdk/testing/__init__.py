"""What plugin authors test with: tiny checkpoints, the reference runner, the conformance kit."""
