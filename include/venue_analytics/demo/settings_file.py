"""Convert `airflow_settings.yaml`, the Astro CLI's file, to entities of Airflow's REST API."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import yaml


@dataclass(frozen=True)
class SettingsFile:
    """Connections, pools and Variables as bodies of API requests."""

    connections: list[dict[str, Any]]
    pools: list[dict[str, Any]]
    variables: list[dict[str, Any]]

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the file; omit empty values."""
        airflow = yaml.safe_load(file.read_text())["airflow"]
        return cls(
            connections=[
                _given(
                    connection_id=one["conn_id"],
                    conn_type=one["conn_type"],
                    host=one.get("conn_host"),
                    port=one.get("conn_port"),
                    schema=one.get("conn_schema"),
                    login=one.get("conn_login"),
                    password=one.get("conn_password"),
                    extra=one.get("conn_extra"),
                )
                for one in airflow["connections"]
            ],
            pools=[
                _given(
                    name=one["pool_name"],
                    slots=one["pool_slot"],
                    description=one.get("pool_description"),
                )
                for one in airflow["pools"]
            ],
            variables=[
                _given(key=one["variable_name"], value=one["variable_value"])
                for one in airflow["variables"]
            ],
        )

    def with_address(self, connection_id: str, host: str, port: int | None) -> Self:
        """Return a copy with another address of one connection."""
        connections = [
            _given(**{**one, "host": host, "port": port})
            if one["connection_id"] == connection_id
            else one
            for one in self.connections
        ]
        return replace(self, connections=connections)

    def with_setting(self, job: str, name: str, value: Any) -> Self:
        """Return a copy with another value of one setting in a job's Variable."""
        variables = [
            {**one, "value": json.dumps({**json.loads(one["value"]), name: value})}
            if one["key"] == job
            else one
            for one in self.variables
        ]
        return replace(self, variables=variables)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "")}
