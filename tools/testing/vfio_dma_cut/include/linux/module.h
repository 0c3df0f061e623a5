/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _CUT_MODULE_H
#define _CUT_MODULE_H

#define MODULE_DESCRIPTION(text)
#define MODULE_LICENSE(text)

#endif
