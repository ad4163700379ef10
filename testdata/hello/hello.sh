#!/bin/sh
# Prints what the build made; `hello exit N` ends with that code.
[ "$1" = exit ] && exit "$2"
cat greeting
for file in made/*; do
    echo "$file: $(cat "$file")"
done
echo "files: $(ls src | tr '\n' ' ')"
echo "user: $(id -un), mood: $MOOD, from: $BUILT_FROM"
echo "arguments: $*"
