# Functions of the scripts beside this file; source it.
# shellcheck shell=bash

# A free port on loopback, below the range the kernel hands out by itself. Somebody may still take it first.
free_port() {
  local port
  while :; do
    port=$((20000 + SRANDOM % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
}
