#!/bin/sh
# Stands for Docker's command: podman, with what Docker does otherwise.
set -eu
command=$1
shift
case $command in
    # The way to package registries is this host's, and a control group isn't needed.
    build) set -- --network=host --isolation=chroot "$@" ;;
    # A root that is read-only has no folder for temporary files that isn't.
    run) set -- --read-only-tmpfs=false "$@" ;;
esac
exec podman "$command" "$@"
