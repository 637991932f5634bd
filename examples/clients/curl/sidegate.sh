#!/usr/bin/env bash
# A client of sidegate's upload and download routes, with curl and jq. The paths
# are those of ../policy.yaml: yours may differ. SIDEGATE_URL and SIDEGATE_TOKEN
# are in the environment.
#
# The file never passes through the gateway. It signs a URL; the file goes to the
# object store by that URL, with exactly the headers that the gateway named; then
# the gateway looks at what landed. What is sent again is sent with the same
# Idempotency-Key, so that a lost answer never makes a second upload.
#
# Tokens and signed URLs come to curl by -K, as configuration: on a command line
# everybody on the machine could read them.
set -euo pipefail

part_size=$((8 << 20))
parts_at_once=50
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --retry waits as Retry-After says, or longer from try to try, and not at all
# where that is beyond --retry-max-time. With --retry-all-errors it also tries
# again where there was no answer.
tries=(--silent --show-error --retry 4 --retry-all-errors --retry-max-time 60 --connect-timeout 20)

die() {
	echo "sidegate: $*" >&2
	exit 1
}

# call METHOD PATH [BODY [IDEMPOTENCY-KEY]] prints the gateway's answer, or ends
# with what its problem document (RFC 9457) says. Programs go by its code.
call() {
	local status
	status=$({
		printf 'url = "%s"\n' "${SIDEGATE_URL%/}$2"
		printf 'header = "Authorization: Bearer %s"\n' "$SIDEGATE_TOKEN"
		[ -z "${3-}" ] || printf 'header = "Content-Type: application/json"\ndata-raw = %s\n' "$(jq -cn --arg body "$3" '$body')"
		[ -z "${4-}" ] || printf 'header = "Idempotency-Key: \\"%s\\""\n' "$4"
	} | curl "${tries[@]}" --request "$1" --output "$work/answer" --write-out '%{http_code}' -K -) || die "no answer from the gateway"
	case $status in
	200) cat "$work/answer" ;;
	204) ;;
	*) die "$status $(jq -r '"\(.code): \(.detail) (request \(.request_id))"' "$work/answer" 2>/dev/null || echo 'not the gateway: no problem document')" ;;
	esac
}

# of NAME reads JSON and prints a field of it.
of() { jq -r --arg name "$1" '.[$name]'; }

# to_store [OPTION...] sends what curl's configuration on standard input says,
# and prints the store's status.
to_store() {
	curl "${tries[@]}" --output "$work/stored" --write-out '%{http_code}' "$@" -K - || true
}

# describe FILE TYPE prints what to ask with.
describe() {
	jq -cn --arg type "$2" --argjson size "$(wc -c <"$1")" '{contentType: $type, size: $size}'
}

# checksum FILE prints its SHA-256 in base64.
checksum() { openssl dgst -sha256 -binary "$1" | base64 -w0; }

upload() { # FILE TYPE [PATH]
	local ask ticket status
	ask=$(describe "$1" "$2" | jq -c --arg sum "$(checksum "$1")" '. + {checksumSha256: $sum}')
	ticket=$(call POST "${3-/v1/uploads/presign}" "$ask" "$(new_key)")
	if [ "$(of method <<<"$ticket")" = PUT ]; then
		status=$(jq -r '"url = \(.putUrl | tojson)", (.headers | to_entries[] | "header = \("\(.key): \(.value)" | tojson)")' <<<"$ticket" |
			to_store --upload-file "$1")
	else
		# The fields in any order, the file last. form-string takes nothing for a file's name.
		status=$({
			jq -r '"url = \(.postUrl | tojson)", (.fields | to_entries[] | "form-string = \("\(.key)=\(.value)" | tojson)")' <<<"$ticket"
			jq -rn --arg path "$1" '"form = \("file=@\($path | tojson)" | tojson)"'
		} | to_store)
	fi
	case $status in
	200 | 201 | 204) ;;
	412) ;; # an object is there already, by a try of ours whose answer was lost
	*) die "the object store answered $status" ;;
	esac
	call POST "/v1/uploads/$(of session <<<"$ticket")/confirm"
}

parts() { # FILE TYPE [IDEMPOTENCY-KEY]: with the same key it goes on where it was
	local begun at size count step numbers signed again number status
	begun=$(call POST /v1/multipart "$(describe "$1" "$2")" "${3-$(new_key)}")
	at=/v1/multipart/$(of session <<<"$begun")
	if [ "$(of status <<<"$begun")" != uploading ]; then # it was completed, and the answer lost
		call POST "$at/complete"
		return
	fi
	size=$(wc -c <"$1")
	step=$(jq --argjson size "$size" --argjson step "$part_size" '[$step, .minPartSize, ($size / .maxParts | ceil)] | max' <<<"$begun")
	count=$(((size + step - 1) / step))
	# What has arrived whole, and then the rest, some at once: URLs do not hold for ever.
	call GET "$at/parts" | jq -c --argjson size "$size" --argjson step "$step" \
		'.parts[] | select(.size == ([$step, $size - (.partNumber - 1) * $step] | min)) | {partNumber, etag}' >"$work/etags"
	numbers=$(jq -cn --argjson count "$count" --slurpfile there "$work/etags" '[range(1; $count + 1)] - [$there[].partNumber]')
	while [ "$numbers" != '[]' ]; do
		signed=$(sign "$at" "$size" "$step" "$(jq -c --argjson n "$parts_at_once" '.[:$n]' <<<"$numbers")")
		for number in $(jq '.parts[].partNumber' <<<"$signed"); do
			send_part "$1" "$step" "$number" <<<"$signed"
			if [ "$status" = 403 ]; then # the URL may be over: the file is large, the network slow
				again=$(sign "$at" "$size" "$step" "[$number]")
				send_part "$1" "$step" "$number" <<<"$again"
			fi
			[ "$status" = 200 ] || die "part $number: the object store answered $status"
		done
		numbers=$(jq -c --argjson n "$parts_at_once" '.[$n:]' <<<"$numbers")
	done
	call POST "$at/complete" "$(jq -cs '{parts: sort_by(.partNumber)}' "$work/etags")"
}

sign() { # AT SIZE STEP NUMBERS
	call POST "$1/parts" "$(jq -c --argjson size "$2" --argjson step "$3" \
		'{parts: [.[] | {partNumber: ., size: ([$step, $size - (. - 1) * $step] | min)}]}' <<<"$4")"
}

send_part() { # FILE STEP NUMBER, and the signed parts on standard input; sets status
	dd if="$1" of="$work/part" bs="$2" skip=$(($3 - 1)) count=1 status=none
	status=$(jq -r --argjson n "$3" '.parts[] | select(.partNumber == $n) |
		"url = \(.url | tojson)", (.headers | to_entries[] | "header = \("\(.key): \(.value)" | tojson)")' |
		to_store --upload-file "$work/part" --dump-header "$work/headers")
	[ "$status" = 200 ] || return 0
	jq -cn --argjson n "$3" --arg etag "$(sed -n 's/^etag: *\(.*[^\r]\)\r*$/\1/Ip' "$work/headers" | tail -n 1)" \
		'{partNumber: $n, etag: $etag}' >>"$work/etags"
}

download() { # KEY FILE
	local signed status
	signed=$(call GET "/v1/files/$(quote "$1")/download")
	status=$(jq -r '"url = \(.getUrl | tojson)"' <<<"$signed" |
		curl "${tries[@]}" --output "$2" --write-out '%{http_code}' -K -) || die "the download broke off"
	[ "$status" = 200 ] || die "the object store answered $status"
}

pages() { # PATH NAME QUERY: all pages as one JSON array
	local page token=''
	while :; do
		page=$(call GET "$1?$3${token:+&pageToken=$(quote "$token")}")
		jq -c --arg name "$2" '.[$name][]' <<<"$page" >>"$work/items"
		token=$(jq -r '.nextPageToken // ""' <<<"$page")
		[ -n "$token" ] || break
	done
	jq -cs . "$work/items"
}

quote() { jq -rn --arg text "$1" '$text | @uri | gsub("%2F"; "/")'; }
new_key() { cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen; }

case ${1-} in
upload) upload "$2" "$3" ;;
form) upload "$2" "$3" /v1/uploads/form ;;
parts) parts "${@:2}" ;;
uploads) pages /v1/uploads uploads '' ;;
abort) call DELETE "/v1/multipart/$2" ;;
download) download "$2" "$3" ;;
list) pages /v1/files objects "${2:+prefix=$(quote "$2")}" ;;
delete) call DELETE "/v1/files/$(quote "$2")" ;;
*)
	cat >&2 <<'USAGE'
usage: sidegate.sh COMMAND, with SIDEGATE_URL and SIDEGATE_TOKEN in the environment
  upload FILE TYPE        form FILE TYPE        parts FILE TYPE [IDEMPOTENCY-KEY]
  uploads                 abort SESSION         download KEY FILE
  list [PREFIX]           delete KEY
USAGE
	exit 2
	;;
esac
