#!/bin/sh
# Prints the notifications of a channel: listen.sh CHANNEL.  psql shows notifications
# only after a command, so this sends an empty command every second.
while sleep 1; do
	{
		echo 'LISTEN :"channel";'
		while sleep 1; do echo ';'; done
	} | psql -XAtq -v channel="$1"
done
