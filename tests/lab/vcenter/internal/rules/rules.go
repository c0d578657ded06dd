// Package rules is what the double has been told to do wrong.
//
// A [Rule] names a method, when it applies, and what happens then. [Set.Take]
// is asked at three places: when a call comes in ([Call]), when the task that
// it made does its work ([Task], [Result]), and when changed areas are about to
// be told ([Answer]). The package decides nothing but
// which rule applies; what a fault looks like on the wire is its callers'.
package rules

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Where a rule applies.
const (
	Call   = "call"   // the call itself: the answer is a fault, late, cut off, or not SOAP at all
	Task   = "task"   // the task that the call made
	Result = "result" // the result for one volume inside a successful task of the storage service
	Answer = "answer" // what a query for changed areas answers
)

// Rule is one thing that goes wrong.
type Rule struct {
	ID     string `json:"id"`
	Method string `json:"method"`          // as on the wire, or "*"
	Disk   string `json:"disk,omitempty"`  // only for this disk's id (or, for calls that create one, its name); "" for all
	Where  string `json:"where,omitempty"` // Call when empty

	Fault   string          `json:"fault,omitempty"`   // type name; none when empty
	Message string          `json:"message,omitempty"` // what the fault says
	Fields  json.RawMessage `json:"fields,omitempty"`  // further properties of the fault, as a JSON object
	Happens *bool           `json:"happens,omitempty"` // whether the operation happens in spite of the fault

	Skip  int `json:"skip,omitempty"`  // so many matching calls pass first
	Count int `json:"count,omitempty"` // then so many are hit; 0 means all

	DelayMs    int  `json:"delayMs,omitempty"`    // so late, in milliseconds
	LostReply  bool `json:"lostReply,omitempty"`  // the operation happens and the connection is cut without an answer
	HTTPStatus int  `json:"httpStatus,omitempty"` // answered in place of the operation

	Lie      string `json:"lie,omitempty"`      // which wrong answer; the truth when empty
	AtOffset *int64 `json:"atOffset,omitempty"` // bytes: which place a lie is about
	Areas    int    `json:"areas,omitempty"`    // at most so many areas an answer; as many as usual when 0

	Seen int `json:"seen"` // calls that matched, those skipped included
	Hits int `json:"hits"` // calls that were hit
}

// Delay is how late the rule makes things.
func (r *Rule) Delay() time.Duration { return time.Duration(r.DelayMs) * time.Millisecond }

// Operates says whether the operation itself is carried out. A real server
// raises VslmSyncFault after the fact, when only its catalog lags behind.
func (r *Rule) Operates() bool {
	switch {
	case r.HTTPStatus != 0:
		return false
	case r.Happens != nil:
		return *r.Happens
	default:
		return r.Fault == "" || r.Fault == "VslmSyncFault"
	}
}

// Set is all rules in force.
type Set struct {
	mu    sync.Mutex
	last  int
	rules []*Rule
}

// Add puts a rule in force and returns its id.
func (s *Set) Add(rule Rule) (string, error) {
	if err := rule.check(); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	rule.ID, rule.Seen, rule.Hits = strconv.Itoa(s.last), 0, 0
	s.rules = append(s.rules, &rule)
	return rule.ID, nil
}

func (r *Rule) check() error {
	if r.Where == "" {
		r.Where = Call
	}
	switch {
	case r.Method == "":
		return fmt.Errorf(`a rule needs a method ("*" for all)`)
	case !slices.Contains([]string{Call, Task, Result, Answer}, r.Where):
		return fmt.Errorf("where is %q; it can be call, task, result or answer", r.Where)
	case r.Skip < 0 || r.Count < 0 || r.DelayMs < 0 || r.Areas < 0:
		return fmt.Errorf("skip, count, delayMs and areas cannot be negative")
	case r.Where != Answer && (r.Lie != "" || r.AtOffset != nil || r.Areas != 0):
		return fmt.Errorf("only an answer can have lie, atOffset or areas")
	case r.Where == Answer && r.Fault != "":
		return fmt.Errorf("an answer is no fault: that is for the call")
	case r.Where != Call && (r.LostReply || r.HTTPStatus != 0):
		return fmt.Errorf("only a call can lose its reply or be answered with an HTTP status")
	case r.Fault == "" && r.DelayMs == 0 && !r.LostReply && r.HTTPStatus == 0 && r.Lie == "" && r.Areas == 0:
		return fmt.Errorf("the rule would change nothing: it needs fault, delayMs, lostReply, httpStatus, lie or areas")
	}
	return nil
}

// Take finds the first rule for a method on some disks and counts it as used.
// Nil when nothing goes wrong.
func (s *Set) Take(where, method string, disks []string) *Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rule := range s.rules {
		if !rule.matches(where, method, disks) || (rule.Count > 0 && rule.Hits >= rule.Count) {
			continue
		}
		rule.Seen++
		if rule.Seen <= rule.Skip {
			continue
		}
		rule.Hits++
		taken := *rule
		return &taken
	}
	return nil
}

func (r *Rule) matches(where, method string, disks []string) bool {
	return r.Where == where &&
		(r.Method == "*" || strings.EqualFold(r.Method, method)) &&
		(r.Disk == "" || slices.Contains(disks, r.Disk))
}

// All rules in force, in the order in which they were added.
func (s *Set) All() []Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Rule, len(s.rules))
	for i, rule := range s.rules {
		all[i] = *rule
	}
	return all
}

// Remove takes one rule out of force; false when there is no such rule.
func (s *Set) Remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.rules)
	s.rules = slices.DeleteFunc(s.rules, func(r *Rule) bool { return r.ID == id })
	return len(s.rules) < before
}

// Clear takes all rules out of force.
func (s *Set) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = nil
}
