#!/usr/bin/python
# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection's credentials as the engine's keystore."""

from __future__ import annotations

DOCUMENTATION = r"""
module: exchange_credentials
short_description: Exchange credentials as a Hummingbot keystore
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - Decrypts one exchange connection of a tenant document with the fleet's key ring, in memory, and encrypts it again
    as the keystore that the Hummingbot engine reads.
  - Without O(dest) it only checks that the credentials open and are complete.
  - Equal inputs give identical files, so a second run changes nothing.
  - No secret and no content of a keystore file appears in result, diff or error.
options:
  tenant:
    description: The tenant's id.
    type: str
    required: true
  connection:
    description:
      - One entry of the document's C(exchange_connections).
      - With O(state=absent) only its C(exchange) matters.
    type: dict
    required: true
  state:
    description: Whether the keystore holds this connection's connector.
    type: str
    choices: [present, absent]
    default: present
  keyring:
    description:
      - The source of the key ring, which names a file and never holds a key.
      - Either C(file), the path of a file of mode 0600 or 0400.
      - Or C(ansible_vault) and C(password_file), the paths of an ansible-vault file and of the file with its password.
      - Or C(hashicorp_vault) with C(url), C(token_file), C(mount) and C(path) of a KV version 2 secret, and optionally
        C(ca_file) and C(namespace).
      - Required with O(state=present).
    type: dict
  salt:
    description: The tenant's salt, from its document. Required with O(state=present).
    type: str
  secret_version:
    description: The document's C(secret_versions.keystore). A new number gives the keystore a new password.
    type: int
    default: 1
  kdf_iterations:
    description:
      - PBKDF2 rounds per secret. The keystore's password is derived and has 256 bits, so that 1 is safe and keeps the
        engine's login fast.
    type: int
    default: 1
  demand_aad:
    description: With V(v2), ciphertexts that are not bound to tenant, connection and field are refused.
    type: str
    choices: [v1, v2]
    default: v1
  dest:
    description:
      - The folder that gets C(password_verification) and C(connectors/<connector>.yml).
      - Files are made with mode V(0400) unless O(mode) says otherwise.
    type: path
extends_documentation_fragment:
  - ansible.builtin.files
  - hummingfleet.core.attributes
  - hummingfleet.core.control_node
attributes:
  check_mode:
    support: full
    description: Decrypts and compares, writes nothing.
  diff_mode:
    support: full
    description: Names the files that differ, never their content.
  idempotent:
    support: full
    description: The files depend on nothing but the options and the key ring.
"""

EXAMPLES = r"""
- name: Write the keystore of a connection
  hummingfleet.core.exchange_credentials:
    tenant: acme
    connection: "{{ document.exchange_connections[0] }}"
    keyring:
      file: /etc/hummingfleet/keyring.yml
    salt: "{{ document.salt }}"
    catalogue: /opt/hummingfleet/catalogue
    dest: /srv/hummingfleet/tenants/acme/bots/b1/config
    owner: "200003"
  delegate_to: localhost

- name: Check that a connection opens with the key ring of an ansible-vault file
  hummingfleet.core.exchange_credentials:
    tenant: acme
    connection: "{{ document.exchange_connections[0] }}"
    keyring:
      ansible_vault: /etc/hummingfleet/keyring.vault.yml
      password_file: /root/.hummingfleet_vault_password
    salt: "{{ document.salt }}"
    catalogue: /opt/hummingfleet/catalogue
  delegate_to: localhost

- name: Take a connector out of the keystore
  hummingfleet.core.exchange_credentials:
    tenant: acme
    connection:
      exchange: binance
    catalogue: /opt/hummingfleet/catalogue
    dest: /srv/hummingfleet/tenants/acme/bots/b1/config
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
credentials:
  description: What the keystore was made from, without anything secret.
  returned: success
  type: dict
  contains:
    connector:
      description: The engine's connector.
      type: str
    fields:
      description: Names of the fields that were decrypted or set; empty with O(state=absent).
      type: list
      elements: str
    files:
      description: The keystore's files below O(dest); with O(state=absent) those that are gone.
      type: list
      elements: str
    fingerprint:
      description: Changes whenever the files would; keyed, so that nothing can be guessed from it.
      type: str
      returned: when O(state=present)
  sample:
    connector: binance
    fields: [binance_api_key, binance_api_secret]
    files: [connectors/binance.yml, password_verification]
    fingerprint: 1b518bae308c36cd8b0abf0c560037962a5ac41f99a817715ec82c04dbb0c599
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.config_files import apply_files
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import (
    CredentialError,
    decrypt_connection,
    fingerprint,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import derive_password
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import load_keyring
from ansible_collections.hummingfleet.core.plugins.module_utils.keystore import VERIFICATION_FILE, engine_keystore

DEFAULT_MODE = "0400"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "tenant": {"type": "str", "required": True},
            "connection": {"type": "dict", "required": True, "no_log": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "keyring": {"type": "dict", "no_log": False},
            "salt": {"type": "str", "no_log": False},
            "secret_version": {"type": "int", "default": 1, "no_log": False},
            "kdf_iterations": {"type": "int", "default": 1},
            "demand_aad": {"type": "str", "choices": ["v1", "v2"], "default": "v1"},
            "catalogue": {"type": "path", "required": True},
            "dest": {"type": "path"},
        },
        required_if=[("state", "present", ("keyring", "salt")), ("state", "absent", ("dest",))],
        add_file_common_args=True,
        supports_check_mode=True,
    )
    try:
        result = _present(module) if module.params["state"] == "present" else _absent(module)
    except HummingfleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


def _present(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    tenant, connection = params["tenant"], params["connection"]
    connectors = load_catalogue(Path(params["catalogue"])).connectors
    keyring = load_keyring(params["keyring"])
    fields = decrypt_connection(connection, tenant, keyring, connectors, demand_aad=params["demand_aad"])
    version, iterations = params["secret_version"], params["kdf_iterations"]
    password = derive_password(keyring, tenant=tenant, salt=params["salt"], purpose="keystore", version=version)
    connector = connectors[connection["exchange"]]
    # Ansible would now blot these values out of anything that this module could still print.
    module.no_log_values.update({password, *(fields[f.name] for f in connector.secrets if f.name in fields)})
    files = engine_keystore(password, connector, fields, iterations)
    context = {"salt": params["salt"], "secret_version": version, "kdf_iterations": iterations}
    credentials = {
        "connector": connector.name,
        "fields": sorted(fields),
        "files": sorted(files),
        "fingerprint": fingerprint(keyring, connection, tenant, connectors, context=context),
    }
    if params["dest"] is None:
        return {"changed": False, "credentials": credentials}
    changed, diff = apply_files(module, Path(params["dest"]), files, default_mode=DEFAULT_MODE, show_content=False)
    return {"changed": changed, "diff": diff, "credentials": credentials}


def _absent(module: AnsibleModule) -> dict[str, Any]:
    connectors = load_catalogue(Path(module.params["catalogue"])).connectors
    exchange = module.params["connection"].get("exchange")
    if exchange not in connectors:
        raise CredentialError("`connection.exchange` is not a connector of the engine; connectors.json lists them.")
    dest = Path(module.params["dest"])
    gone = [f"connectors/{exchange}.yml"]
    if not any(path != dest / gone[0] for path in (dest / "connectors").glob("*.yml")):
        gone.append(VERIFICATION_FILE)  # nothing is left that it could verify a password for
    changed, diff = apply_files(module, dest, {}, absent=gone, default_mode=DEFAULT_MODE, show_content=False)
    return {
        "changed": changed,
        "diff": diff,
        "credentials": {"connector": exchange, "fields": [], "files": gone},
    }


if __name__ == "__main__":
    main()
