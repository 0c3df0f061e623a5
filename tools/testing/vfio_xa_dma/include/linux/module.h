/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _SHIM_MODULE_H
#define _SHIM_MODULE_H

#define MODULE_IMPORT_NS(ns)
#define MODULE_DESCRIPTION(text)
#define MODULE_LICENSE(text)

#endif
