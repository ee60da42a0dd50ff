#!/bin/sh
# The guest's part of live.sh: $1 is the test binary.
exec "$1" --ignored --nocapture --test-threads=1
