"""Grafana is provisioned with the source and the folder that the compose file gives it."""

import json
from pathlib import Path
from typing import Any

import yaml

from deploy.grafana import board

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"


def read(name: str) -> Json:
    return dict(yaml.safe_load((PROVISIONING / name).read_text()))


def test_boards_are_read_from_where_they_are_mounted() -> None:
    (provider,) = read("dashboards/hemostat.yml")["providers"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounted = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounted["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home == Path(provider["options"]["path"]) / board.FILE.name
    assert json.loads(board.FILE.read_text())["uid"] == board.UID
