# Mosquitto 2 with the contract of the official image. Runs as root in a container.
apt-get update -q
apt-get install -q -y mosquitto
rm -rf /etc/mosquitto /var/lib/mosquitto /var/log/mosquitto
install -d -o mosquitto -g mosquitto /mosquitto /mosquitto/config /mosquitto/data /mosquitto/log
tidy
