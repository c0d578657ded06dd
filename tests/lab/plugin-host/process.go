package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// memory reads a line of /proc/PID/status, in KiB; 0 when there is none.
func memory(pid int, which string) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var size int64
	for _, line := range strings.Split(string(text), "\n") {
		if rest, found := strings.CutPrefix(line, which+":"); found {
			_, _ = fmt.Sscan(rest, &size)
		}
	}
	return size
}

// children counts the processes that a process has started and that live.
func children(pid int) int {
	found, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	count := 0
	for _, file := range found {
		text, _ := os.ReadFile(file)
		count += len(strings.Fields(string(text)))
	}
	return count
}
