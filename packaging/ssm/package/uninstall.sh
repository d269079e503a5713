#!/bin/sh
# Removes the package, and keeps state and configuration: Distributor also calls this between two versions.
set -eu
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
apt-get -o DPkg::Lock::Timeout=300 remove --yes sideline
