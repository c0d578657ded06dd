package control

import (
	"fmt"
	"slices"
)

// Script is what the stand-in VDDK library does wrong. This package only
// checks and stores it; the library reads it.
type Script struct {
	Rules []ScriptRule `json:"rules"`
}

// ScriptRule is one thing that goes wrong in the library.
type ScriptRule struct {
	Disk     string `json:"disk,omitempty"`
	Snapshot string `json:"snapshot,omitempty"`
	DiskMiB  int    `json:"diskMib,omitempty"`  // open disks of that size
	Function string `json:"function"`           // one of scriptFunctions
	AtOffset *int64 `json:"atOffset,omitempty"` // bytes: only requests that cover this offset
	Skip     int    `json:"skip"`
	Count    int    `json:"count"`
	Action   string `json:"action"` // one of scriptActions
	Code     int    `json:"code"`   // VixError, for "fail"
	DelayMs  int    `json:"delayMs"`
}

var (
	scriptFunctions = []string{"Open", "Read", "Write", "Flush", "Close", "InitEx", "ConnectEx"}
	scriptActions   = []string{"fail", "hang", "abort", "slow"}
)

func (s *Script) check() error {
	if s.Rules == nil {
		s.Rules = []ScriptRule{}
	}
	for i, rule := range s.Rules {
		switch {
		case !slices.Contains(scriptFunctions, rule.Function):
			return fmt.Errorf("rule %d: function is %q; it can be %v", i, rule.Function, scriptFunctions)
		case !slices.Contains(scriptActions, rule.Action):
			return fmt.Errorf("rule %d: action is %q; it can be %v", i, rule.Action, scriptActions)
		case rule.Action == "fail" && rule.Code == 0:
			return fmt.Errorf("rule %d: a failure needs a code other than 0", i)
		case rule.Skip < 0 || rule.Count < 0 || rule.DelayMs < 0 || rule.DiskMiB < 0:
			return fmt.Errorf("rule %d: skip, count, delayMs and diskMib cannot be negative", i)
		}
	}
	return nil
}
