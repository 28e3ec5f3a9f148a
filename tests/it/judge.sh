# shellcheck shell=bash
# What tests written for bash share. The test has set DIR (its folder) and L (its lab), and counts in passed and fail.

lab() { "$DIR/../lab/lab" --name "$L" "$@"; }
on() { local n=$1; shift; lab exec "$n" -- "$@"; }

# is WHAT GOT WANT
is()
{
	if [[ $2 == "$3" ]]; then
		passed=$((passed + 1))
	else
		fail=$((fail + 1))
		echo "FAIL  $1: got \"$2\", want \"$3\""
	fi
}

# has WHAT GOT PART
has() { if [[ $2 == *"$3"* ]]; then passed=$((passed + 1)); else fail=$((fail + 1)); echo "FAIL  $1: \"$2\" does not say \"$3\""; fi; }

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
