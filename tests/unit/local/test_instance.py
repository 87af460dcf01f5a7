import ipaddress
import itertools
from pathlib import Path

import pytest
from trimtab_local import Failed
from trimtab_local.instance import Instance, cache


def test_clusters_side_by_side_share_no_address_and_no_folder() -> None:
    instances = [Instance(number) for number in range(1, 100)]
    networks = [
        network
        for instance in instances
        for network in (
            ipaddress.IPv4Network(f"{instance.address}/30", strict=False),
            ipaddress.IPv4Network(instance.pods),
            ipaddress.IPv4Network(instance.services),
        )
    ]
    ordered = sorted(networks)
    assert not any(left.overlaps(right) for left, right in itertools.pairwise(ordered))
    assert len({instance.folder for instance in instances}) == len(instances)


def test_every_address_is_from_the_range_reserved_for_tests() -> None:
    reserved = ipaddress.IPv4Network("198.18.0.0/15")
    for number in (1, 99):
        instance = Instance(number)
        assert ipaddress.IPv4Network(instance.pods).subnet_of(reserved)
        assert ipaddress.IPv4Network(instance.services).subnet_of(reserved)
        for address in (instance.address, instance.host_address, instance.dns, instance.first_service):
            assert ipaddress.ip_address(address) in reserved
        assert ipaddress.ip_address(instance.dns) in ipaddress.IPv4Network(instance.services)


def test_the_interface_name_fits_the_kernel() -> None:
    assert len(Instance(99).name) <= 15


@pytest.mark.parametrize("number", [0, 100, -1])
def test_a_number_without_addresses_is_refused(number: int) -> None:
    with pytest.raises(Failed, match="1 to 99"):
        Instance(number)


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    assert cache() == tmp_path
    assert Instance(3).kubeconfig == tmp_path / "clusters" / "3" / "admin.kubeconfig"
