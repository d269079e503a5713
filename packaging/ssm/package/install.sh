#!/bin/sh
# Installs the package that lies beside it; Systems Manager's Distributor calls it in this folder.
set -eu
cd "$(dirname "$0")"
# A configuration that was edited stays; needrestart, which comes with Ubuntu, would restart services of others.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
  install --yes --no-install-recommends --allow-downgrades ./sideline_*.deb
