"""Connections, migrations, the source contract and its adapters."""
