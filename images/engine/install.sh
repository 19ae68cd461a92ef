# The trading engine from its locked wheels, in the layout of the official image. Runs as root in a container.
venv=/opt/hummingbot
home=/home/hummingbot

python3 -m venv /run/pip
python3 -m venv --without-pip "$venv"
/run/pip/bin/pip --python "$venv/bin/python" install --quiet --no-index --no-deps --no-compile \
    --find-links /run/wheels --requirement /run/build/packages.txt
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# The engine takes the parent of its package as its home, so the package lives there, as in the official image;
# the .pth file also makes scripts/ and controllers/ importable.
mkdir -p "$home"/conf/connectors "$home"/conf/controllers "$home"/conf/scripts "$home"/conf/strategies \
    "$home"/data "$home"/logs "$home"/scripts "$home"/controllers "$home"/certs
mv "$site/hummingbot" "$home/hummingbot"
echo "$home" > "$site/hummingbot_home.pth"

# Test suites of large libraries: a tenth of the image. Not numpy's: numpy.testing imports from them.
for package in scipy pandas numba llvmlite; do
    find "$site/$package" -type d -name tests -prune -exec rm -rf {} +
done
rm -rf "$site/Crypto/SelfTest" "$site/Cryptodome/SelfTest" "$venv/bin/hummingbot_quickstart.py"

# Engines before 2.16 have no command line of their own.
[ ! -d "$home/hummingbot/cli" ] || install -m 0755 /run/build/files/hbot /usr/local/bin/hbot
# Importing the engine costs four times the processor time without bytecode, and a read-only root cannot cache it.
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$venv/lib" "$home/hummingbot" || true
# What was left out must be missed now rather than on a node.
cd "$home" && "$venv/bin/python" - <<'CHECK'
import hummingbot
assert str(hummingbot.root_path()) == "/home/hummingbot"
import hummingbot.client.hummingbot_application, hummingbot.client.settings, pandas_ta
import importlib.util
if importlib.util.find_spec("hummingbot.cli"):
    import hummingbot.cli.engine
import hummingbot.connector.exchange.binance.binance_exchange
import hummingbot.strategy_v2.executors.grid_executor.grid_executor
from hummingbot.client.settings import AllConnectorSettings
assert len(AllConnectorSettings.create_connector_settings()) > 50
CHECK
rm -rf "$home"/logs/* "$home"/data/* "$home"/conf/*.yml
tidy
