"""docs/tutorial.md is executed as a newcomer executes it: every command, in order, with the output that it shows.

Only the ports differ. The first block installs the service; the environment of the tests has it already.
"""

from pathlib import Path

import pages
from harness import free_port


def test_the_tutorial_does_what_it_shows(tmp_path, nginx_program):
    install, *steps = pages.sessions("tutorial.md")
    assert install == ("make demo\n", "")
    free = {port: free_port() for port in ("8080", "8081", "8090", "9000")}
    edit = "sed -i " + " ".join(f"-e 's#127.0.0.1:{port}#127.0.0.1:{free[port]}#'" for port in free)
    change = [
        *((f"127.0.0.1:{port}", f"127.0.0.1:{free[port]}") for port in free),
        ("http.server 9000", f"http.server {free['9000']}"),
        ('("127.0.0.1", 8090)', f'("127.0.0.1", {free["8090"]})'),
        ("sts init | tee init.txt", f"sts init | tee init.txt\n{edit} sts.yaml"),
        ('cp "$CHECKOUT/', f'{edit} gateway/nginx.conf\ncp "$CHECKOUT/'),
        ('export CHECKOUT="$PWD"', f'export CHECKOUT="{pages.ROOT}"'),
    ]
    printed = pages.run([commands for commands, _ in steps], tmp_path, change=change, path=[Path(nginx_program).parent])
    for (commands, shown), said in zip(steps, printed, strict=True):
        assert not shown or pages.matches(shown, said), (commands, said)
    assert sum(1 for _, shown in steps if shown) == 12
