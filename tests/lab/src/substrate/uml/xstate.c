/*
 * Loaded into User Mode Linux (LD_PRELOAD): makes it run on processors with AMX, and
 * start processes some ten times faster on all.
 *
 * UML keeps the vector registers of its guests' processes with PTRACE_GETREGSET and
 * PTRACE_SETREGSET(NT_X86_XSTATE), in a buffer of fixed size (2696 bytes up to
 * AVX-512; arch/x86/um/os-Linux/registers.c, before Linux 6.13). A host with
 * AMX has a longer area, and its kernel refuses to set a shorter one with EFAULT
 * (xstateregs_set in arch/x86/kernel/fpu/regset.c): UML then dies with "ptrace set
 * fp regs failed, errno = 14" as its first process starts. So we hand over the whole
 * area, the part that UML does not know being empty: its guests never asked for AMX.
 *
 * UML sets these registers each time it returns to a guest's process, although it
 * rarely changed them, and each time the host's kernel allocates a buffer of
 * virtual memory for it. So we leave out a write of what is there already.
 *
 * ptrace is called by UML's main thread alone: no locks.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/elf.h>
#include <linux/ptrace.h>

/* Larger than any host's area so far (AMX: 11008). */
#define HOST_MAX 32768
/* Larger than UML's area; what is longer is passed on unremembered. */
#define GUEST_MAX 4096
/* Remembered processes; a collision costs one write. */
#define SLOTS 1024

static struct slot {
	int pid; /* 0: nothing is known */
	size_t length;
	unsigned char area[GUEST_MAX];
} slots[SLOTS];

static unsigned char host_area[HOST_MAX] __attribute__((aligned(64)));
static size_t host_length;

static struct slot *slot_of(int pid)
{
	return &slots[(unsigned int)pid % SLOTS];
}

static void forget(int pid)
{
	struct slot *slot = slot_of(pid);

	if (slot->pid == pid)
		slot->pid = 0;
}

static void remember(int pid, const void *area, size_t length)
{
	struct slot *slot = slot_of(pid);

	slot->pid = 0;
	if (length > GUEST_MAX)
		return;
	memcpy(slot->area, area, length);
	slot->length = length;
	slot->pid = pid;
}

static long get_xstate(int pid, struct iovec *guest)
{
	long result = syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, guest);

	if (result == 0)
		remember(pid, guest->iov_base, guest->iov_len);
	else
		forget(pid);
	return result;
}

static long set_xstate(int pid, struct iovec *guest)
{
	struct iovec host = { host_area, sizeof(host_area) };
	const struct slot *slot = slot_of(pid);
	size_t length = guest->iov_len;
	long result;

	if (host_length == 0) {
		if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &host) < 0)
			return -1;
		host_length = host.iov_len;
	}
	/* UML's buffer may also be longer than what the host has (no AVX-512). */
	if (length > host_length)
		length = host_length;
	if (slot->pid == pid && slot->length == length &&
	    memcmp(slot->area, guest->iov_base, length) == 0)
		return 0;
	memcpy(host_area, guest->iov_base, length);
	memset(host_area + length, 0, host_length - length);
	host.iov_len = host_length;
	result = syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &host);
	if (result == 0)
		remember(pid, guest->iov_base, length);
	else
		forget(pid);
	return result;
}

long ptrace(int request, ...)
{
	va_list arguments;
	void *address, *data;
	long result, word;
	int pid;

	va_start(arguments, request);
	pid = va_arg(arguments, int);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);

	switch (request) {
	case PTRACE_GETREGSET:
		if ((long)address == NT_X86_XSTATE)
			return get_xstate(pid, data);
		break;
	case PTRACE_SETREGSET:
		if ((long)address == NT_X86_XSTATE)
			return set_xstate(pid, data);
		break;
	case PTRACE_GETREGS:
	case PTRACE_SETREGS:
		break;
	case PTRACE_CONT:
		/*
		 * Without a signal it runs UML's stub, which makes system calls and touches no
		 * vector register. With one it runs the stub's handler, for which the
		 * kernel resets them. Guests' own code is run by PTRACE_SYSEMU.
		 */
		if (data != NULL)
			forget(pid);
		break;
	case PTRACE_PEEKTEXT:
	case PTRACE_PEEKDATA:
	case PTRACE_PEEKUSR:
		/* The C library's calling convention: the word is the result. */
		result = syscall(SYS_ptrace, request, pid, address, &word);
		if (result < 0)
			return result;
		errno = 0;
		return word;
	default:
		forget(pid);
	}
	return syscall(SYS_ptrace, request, pid, address, data);
}
