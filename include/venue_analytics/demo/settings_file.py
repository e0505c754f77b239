"""`airflow_settings.yaml`, which the Astro CLI reads, in the words of Airflow's REST API."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import yaml


@dataclass(frozen=True)
class SettingsFile:
    """Connections, pools and Variables, each as the API takes it."""

    connections: list[dict[str, Any]]
    pools: list[dict[str, Any]]
    variables: list[dict[str, Any]]

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the file; what it leaves empty is left out."""
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
        """The same with another address of one connection."""
        connections = [
            _given(**{**one, "host": host, "port": port})
            if one["connection_id"] == connection_id
            else one
            for one in self.connections
        ]
        return replace(self, connections=connections)

    def with_setting(self, job: str, name: str, value: Any) -> Self:
        """The same with another setting in a job's Variable."""
        variables = [
            {**one, "value": json.dumps({**json.loads(one["value"]), name: value})}
            if one["key"] == job
            else one
            for one in self.variables
        ]
        return replace(self, variables=variables)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "")}
