#!/bin/sh
# Whether the version that lies beside it is the installed one. Distributor remembers what it has installed, and asks this
# before it believes it: somebody may have removed the package since.
set -eu
cd "$(dirname "$0")"
wanted=$(dpkg-deb --field ./sideline_*.deb Version)
found=$(dpkg-query --show --showformat '${db:Status-Status} ${Version}' sideline 2>/dev/null || true)
if [ "$found" != "installed $wanted" ]; then
  echo "sideline is ${found:-not installed}, not $wanted" >&2
  exit 1
fi
