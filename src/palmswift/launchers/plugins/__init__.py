"""Plugins for ms-swift's `--external_plugins`: each file stands alone and can be copied."""
