#!/bin/sh
# Prints what a channel is told: listen.sh CHANNEL.  psql shows notifications
# after each command, so it is given an empty one every second.
while sleep 1; do
	{
		echo 'LISTEN :"channel";'
		while sleep 1; do echo ';'; done
	} | psql -XAtq -v channel="$1"
done
