# The sandbox exchange with its locked packages. Runs as root in a container.
venv=/opt/sandbox
apt-get update -q
apt-get install -q -y python3
# pip is needed while building only.
mkdir -p /run/venv-packages
(cd /run/venv-packages && apt-get download -q python3-pip-whl python3-setuptools-whl && for deb in *.deb; do
    dpkg-deb -x "$deb" /run/venv-packages
done)
python3 -m venv --without-pip "$venv"
pip=$(ls /run/venv-packages/usr/share/python-wheels/pip-*.whl)
PYTHONPATH=$pip "$venv/bin/python" -m pip install --quiet --no-index --no-deps --no-compile \
    --find-links /run/wheels --requirement /run/build/packages.txt
mkdir -p "$venv/app" /etc/sandbox /run/sandbox
cp -R /run/build/copies/sandbox "$venv/app/sandbox"
find "$venv/app" -name __pycache__ -prune -exec rm -rf {} +
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$venv"
chmod -R go=rX "$venv/app"
tidy
