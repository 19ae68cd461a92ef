"""Texts that try to be more than text. Each that could run something would leave a file in MARKS."""

from __future__ import annotations

from pathlib import Path

MARKS = Path("/var/tmp/hfsecm")


def texts() -> dict[str, str]:
    """Hostile texts by name."""
    counter = iter(range(1000))

    def touch() -> str:
        return f"touch {MARKS}/{next(counter)}"

    return {
        "Jinja lookup": f"{{{{ lookup('pipe','{touch()}') }}}}",
        "Jinja statement": f"{{% set x = lookup('pipe','{touch()}') %}}",
        "Jinja comment": "{# hidden #}visible",
        "Jinja unfinished": "{{ lookup('pipe', 'id'",
        "Jinja raw": "{% raw %}{{ 7*7 }}{% endraw %}",
        "Jinja arithmetic": "{{ 7*7 }}",
        "Jinja object walk": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "Jinja variables": "{{ hostvars }}{{ vars }}",
        "Jinja with line marker": f"#jinja2: variable_start_string: '<<'\n<< lookup('pipe','{touch()}') >>",
        "Ansible variable": "ansible_host",
        "Ansible variable with value": "ansible_connection=local ansible_host=127.0.0.1",
        "Ansible pattern": "all:!nodes:&tenants",
        "Ansible range": "tenant-[00:99]",
        "YAML unsafe tag": "!unsafe '{{ x }}'",
        "YAML vault tag": "!vault |\n  $ANSIBLE_VAULT;1.1;AES256",
        "YAML Python tag": f"!!python/object/apply:os.system ['{touch()}']",
        "YAML anchor": "&a [*a, *a]",
        "YAML merge": "<<: *default",
        "YAML document end": "x\n---\nstate: terminated",
        "YAML mapping": "x: {y: [1, 2]}",
        "YAML block": "|\n  text",
        "shell substitution": f"$({touch()})",
        "shell backticks": f"`{touch()}`",
        "shell separator": f"; {touch()}; #",
        "shell and": f"x && {touch()}",
        "shell pipe": f"x | {touch()}",
        "shell quote": f"'; {touch()}; '",
        "shell double quote": f'"; {touch()}; "',
        "shell newline": f"x\n{touch()}\n",
        "shell expansion": "~/*?[a-z]{1,2}!!",
        "option": "--privileged",
        "path upwards": "../../../../etc/passwd",
        "path absolute": "/etc/shadow",
        "path dots": "..",
        "path with NUL": "x\0/etc/passwd",
        "path of Windows": "..\\..\\boot.ini",
        "NUL": "\0",
        "format of C": "%s%s%n%x",
        "format of Python": "{0.__class__.__init__.__globals__}",
        "template of Python": "${__import__('os')}",
        "compose variable": "${HOME}",
        "compose default": f"${{X:-$({touch()})}}",
        "compose dollars": "$$HOME $HOME $",
        "terminal colour": "\x1b[31mred\x1b[0m",
        "terminal title": "\x1b]0;title\x07",
        "terminal of eight bits": "\x9b31m",
        "terminal carriage return": "safe\rhidden",
        "backspace": "admin\b\b\b\b\broot",
        "right to left": "abc\u202etxt.exe",
        "zero width": "ad\u200bmin",
        "byte order mark": "\ufeffx",
        "line separator": "a\u2028b",
        "lookalike": "аcme",  # the first letter is Cyrillic
        "wide": "ａｃｍｅ",
        "surrogate": "x\ud800y",
        "private use": "\ue000",
        "combining": "Z\u0351\u036b\u0343\u036a",
        "emoji": "bot 🤖",
        "SQL": "x'; DROP TABLE tenants; --",
        "SQL union": '" UNION SELECT 1 --',
        "XML": '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        "HTML": "<script>alert(1)</script>",
        "HTML attribute": '" onmouseover="alert(1)',
        "rich markup": "[bold red]x[/] [link=file:///etc/passwd]y[/link]",
        "JSON": '","state":"terminated","x":"',
        "prototype": "__proto__",
        "constructor": "constructor",
        "HTTP header": "x\r\nSet-Cookie: a=b",
        "LDAP": "*)(uid=*))(|(uid=*",
        "log forging": "x\n2026-01-01 INFO all is well",
        "JNDI": "${jndi:ldap://127.0.0.1/a}",
        "not a number": "NaN",
        "infinite": "1e999",
        "hexadecimal": "0x7f",
        "boolean": "true",
        "null": "null",
        "empty": "",
        "blank": "   ",
        "long": "A" * 100_000,
        "long Jinja": "{{" * 20_000,
    }
