"""Plugins that watch a run through its life-cycle hooks: logs, pictures, a progress bar. One observer a file."""
