"""docs/how-to/two-replicas.md is executed on one machine: every command, in order, with the output that it shows."""

from pathlib import Path

import pages
import pytest
from harness import Idp, free_port

from scripts import servers


@pytest.fixture
def redis_program():
    program = servers.find(servers.REDIS) or servers.find(servers.VALKEY)
    if program is None:
        pytest.skip("there is neither redis-server nor valkey-server on this machine")
    return program


def test_two_replicas_share_keys_and_revocations_and_one_may_stop(tmp_path, nginx_program, redis_program):
    idp = Idp()
    (tmp_path / "inbound.jwt").write_text(idp.token(aud="api-gateway", scope="orders:read"))
    steps = pages.sessions("how-to/two-replicas.md")
    free = {port: free_port() for port in ("8080", "8081", "8082", "8090", "6379")}
    addresses = [(f"127.0.0.1:{port}", f"127.0.0.1:{free[port]}") for port in free]
    edit = "sed -i " + " ".join(f"-e 's#{there}#{here}#'" for there, here in addresses)
    prepare = f"""
        export CHECKOUT={pages.ROOT}
        sts init > init.txt
        sed -n 's/^secret of the client.*: *//p' init.txt > secret.txt
        sed -i 's#https://idp.example.com/jwks.json#{idp.url}#' sts.yaml
    """
    change = [
        *(pair for pair in addresses if not pair[0].endswith(":8090")),
        ("port 6379", f"port {free['6379']}"),
        ("http.server 8090", f"http.server {free['8090']}"),
        ("redis-server redis/redis.conf", f"{redis_program} redis/redis.conf"),
        (f"server 127.0.0.1:{free['8080']} max", "server 127.0.0.1:8080 max"),  # as the shipped file has it
        ('cp "$CHECKOUT/', f'{edit} gateway/nginx.conf\ncp "$CHECKOUT/'),
    ]
    try:
        _, *printed = pages.run(
            [prepare, *(commands for commands, _ in steps)], tmp_path, change=change, path=[Path(nginx_program).parent]
        )
    finally:
        idp.close()
    for (commands, shown), said in zip(steps, printed, strict=True):
        assert not shown or pages.matches(shown, said), (commands, said)
    assert sum(1 for _, shown in steps if shown) == 7
